"""What the exit code of a command says; 0 is a result, 1 an error of the program."""

REFUSED = 2  # something that the user can put right
DIVERGED = 3  # the loss is not a number any more
ELSEWHERE = 4  # another process computes this run
INTERRUPTED = 130  # as of a shell, after Ctrl-C and SIGTERM
