"""Where Google's API has what needs no worker of the CLI, as werkzeug's URL rules."""

from __future__ import annotations

from gemproxy.dialects.native.dialect import VERSIONS

# OpenAI's API has files and models at /v1 as well.
_VERSIONS_ALONE = ("v1beta", "v1alpha")

# About a model: its name comes as C{model}.
OF_MODELS = tuple(
    f"/{version}/models/<path:model>:{method}"
    for version in VERSIONS
    for method in ("countTokens", "embedContent", "batchEmbedContents")
)
COUNTING = b":countTokens"

LISTS = tuple(f"/{version}/models" for version in _VERSIONS_ALONE)
MODELS = tuple(f"{rule}/<path:name>" for rule in LISTS)

_KEPT = (
    *(f"/{version}/files" for version in _VERSIONS_ALONE),
    *(f"/{version}/cachedContents" for version in VERSIONS),
    *(f"/upload/{version}/files" for version in VERSIONS),
)
# What is kept for the owner of a key.
KEPT = tuple(rule for kept in _KEPT for rule in (kept, f"{kept}/<path:rest>"))
KEPT_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
