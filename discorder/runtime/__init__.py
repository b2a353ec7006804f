"""What concerns the process and its event loop rather than Discord: lag, clock jumps, threads, alarms, open files."""
