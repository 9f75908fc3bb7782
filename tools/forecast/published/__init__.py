"""What others published of QEMU's migrations, beside what the model says of their hosts."""
