"""What is run beside a migration."""
