"""Commands: options, exit codes and printing; what they do is in the packages below."""
