"""What an operator sees of a running node, and may do to it: HTTP on a port of its own."""
