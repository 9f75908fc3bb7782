"""The receive side: packets into the destination, its verification, and where it goes in the end."""
