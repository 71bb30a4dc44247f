"""A small stand-in for Google's Gemini API: for the demo, where no key is needed, and for tests."""
