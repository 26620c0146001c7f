def report(w): pass
