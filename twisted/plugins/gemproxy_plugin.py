from twisted.application.service import ServiceMaker

# By name, so that twistd's --reactor takes effect before anything of ours is imported.
serviceMaker = ServiceMaker(
    "gemproxy",
    "gemproxy.tap",
    "One OpenAI-compatible address for Gemini, through its CLI, and every other model.",
    "gemproxy",
)
