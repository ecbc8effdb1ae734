# The attribute that makes an exported command an operation.

# Carry the metadata record of an operation: `@operation {idempotent: true}`.
#
# The record does nothing at run time; `scope commands` shows it, and the
# catalogue reads it there. README.md lists the keys.
export alias "attr operation" = echo
