"""Tables of what converts and agrees, a module a framework."""
