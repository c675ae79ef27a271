"""What people see, as values: the rows of a list, a specimen's results and its story, a message taken apart, words.

Pure but for what a reader is asked: no browser, no socket. The console draws it; the command line may say the same.
"""
