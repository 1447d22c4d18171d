"""How the stack is operated: the code behind `./ops/stack`."""
