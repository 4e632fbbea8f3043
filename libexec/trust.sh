# Sourced by what reads files of the administrator: the rule of trust, as in src/config/trust.ts.
newline='
'
# Lengths are counted in bytes, and ranges are those of ASCII.
LC_ALL=C

# is_trusted TYPE MODE LINKS OWNER...: the first fields of a line of `ls -ln`, which no builtin can tell: whether it is a
# file (-) or a folder (d), root's, and not writable by others.
is_trusted() {
  case $2 in "$1"????[!w]??[!w]*) [ "$4" = 0 ] ;; *) return 1 ;; esac
}
