"""Terminal, clipboard, child processes and the screen's own settings."""
