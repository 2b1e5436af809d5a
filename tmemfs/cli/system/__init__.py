"""What commands ask of the machine and do to it: mounts, swap, loop devices, who holds them."""
