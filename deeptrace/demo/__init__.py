"""What `deeptrace demo` runs: real services, a load generator, and a check of every trace against what was really sent."""
