"""Work with names and writes on a local disk: tmemfs beside bindfs and the bare directory."""
