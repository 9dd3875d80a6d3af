"""What is true everywhere: rows, words, decisions, wire form and callers. No bytes of files."""
