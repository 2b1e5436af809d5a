"""What a cache volume asks of its backing directory: system calls, and the threads they wait in."""
