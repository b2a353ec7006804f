"""The clients that are measured, each started as a process of its own. On a line on standard input each says what it got."""
