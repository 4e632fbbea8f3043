# Sourced by programs that read files of the administrator: which files may be trusted, as in src/config/trust.ts.
newline='
'
# Lengths are counted in bytes, and ranges are those of ASCII.
LC_ALL=C

# is_trusted TYPE MODE LINKS OWNER...: whether it is a file (TYPE -) or a folder (d), owned by root, and not writable by
# others. The rest are the first fields of its line of `ls -ln`; no builtin can find them out.
is_trusted() {
  case $2 in "$1"????[!w]??[!w]*) [ "$4" = 0 ] ;; *) return 1 ;; esac
}
