"""What is asked of Linux itself: system calls that Python lacks, mounts, loop devices, rights."""
