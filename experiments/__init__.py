"""One module for each kind of task: model, loss, metrics and data as pure functions; launch.py picks one by name."""
