"""The command line: one file per command; nothing here touches a tensor."""
