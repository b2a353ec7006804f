"""Manage the process and its event loop: lag, clock jumps, threads, alarms, open files."""
