"""What people type: one module for each command, and what they share."""
