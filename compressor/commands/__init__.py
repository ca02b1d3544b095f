"""What stands behind the command line: flags, console, doctor, lists, single steps on folders and on vocabularies."""
