"""Transfer negotiation: from where to get it, to where to put it."""
