"""What takes packets to the destination. One file, or folder, a transport."""
