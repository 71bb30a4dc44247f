"""What happens to parameters that Google cannot honour."""

from __future__ import annotations

from attrs import define, field

from gemproxy.chat.errors import bad_request


@define
class Leniency:
    """
    Leaves out what Google cannot honour, or refuses it.

    @ivar lenient: whether it is left out; otherwise it is refused.
    @ivar ignored: the names of the client's parameters that were left out, for the client. They
        are the keys, in their order.
    """

    lenient: bool
    ignored: dict[str, None] = field(factory=dict)

    def leave_out(self, name: str, reason: str = "is not supported for this model") -> None:
        """
        @param name: the parameter's name.
        @param reason: continues the name in the error's message.
        @raise ChatError: 400, parameters are not to be left out.
        """
        if not self.lenient:
            raise bad_request(f"'{name}' {reason}.", name)
        self.ignored[name] = None
