"""Between hosts: addresses, TLS, and what the kernel knows of a socket."""
