"""The commands of `./ops/stack`, each in the file with its name."""
