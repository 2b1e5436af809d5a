"""What the kernel asks: handlers of a few lines over volumes. The only room that knows pyfuse3."""
