"""The queue of questions and the trained policy over HTTP, on Ray Serve."""
