"""What a migration of a VM will take, before it starts."""
