"""What stands behind the command line: flags, console, doctor, single steps on folders and on vocabularies."""
