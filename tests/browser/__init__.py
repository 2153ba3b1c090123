"""The dashboard in a real browser: Chromium, driven by Playwright, against the program in a process of its own."""
