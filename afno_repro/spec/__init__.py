"""What is asked: specs, the runs that they plan, and where everything lies."""
