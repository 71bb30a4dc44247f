"""One OpenAI-compatible address for Gemini (through the Gemini CLI) and every other model."""

__version__ = "0.1.0"
