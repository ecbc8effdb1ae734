# Configuration made from data. A template is text with tags, and nothing in it is run.
#
#   {{ name }} {{ site.port }}     a text, a number or true or false from the data
#   {{ "{{" }}                     the text between the quotes
#   {{#if tls}}…{{else}}…{{/if}}   the first part unless the value is false, null, 0 or empty
#   {{#each hosts}}…{{/each}}      once for each item: {{ . }} is the item, {{ .port }} its
#                                  field, {{ @number }} counts from 1, and @first is
#                                  true for the first alone
#
# A name that the data does not have is an error with file and line, in an `if`
# too. A line that has only an #if, else, #each or closing tag leaves nothing.

# Fill a template from data; errors name `file` and the line.
export def fill-template [
  template: string # The text of the template
  data: record # What its names mean
  --file: string = "template" # What errors call it
]: nothing -> string {
  let tokens = (tokenize $template $file)
  let parsed = (parse-block $tokens 0 "" $file)
  render $parsed.nodes [$data] $file
}

# The pieces of a template with their lines: text, or the inside of a tag.
def tokenize [
  template: string # The text of the template
  file: string # What errors call it
]: nothing -> list<any> {
  let last = (($template | split row "\n" | length) - 1)
  $template | split row "\n" | enumerate | each {|row|
    let number = ($row.index + 1)
    let end = if $row.index == $last { "" } else { "\n" }
    let alone = ($row.item | parse --regex '\A[ \t]*\{\{\s*(?P<tag>#(?:if|each)\s[^{}]*|else|/(?:if|each))\s*\}\}[ \t\r]*\z')
    if ($alone | is-not-empty) {
      [{ tag: ($alone.0.tag | str trim) line: $number }]
    } else {
      # A tag, or text up to the next one.
      let pieces = ($row.item | parse --regex '(?P<tag>\{\{\s*(?:"[^"]*"|[^{}"]*)\s*\}\})|(?P<text>(?:[^{]|\{(?!\{))+|\{\{)')
      let tokens = ($pieces | each {|piece|
        if $piece.tag? not-in [null ""] {
          { tag: ($piece.tag | str replace --regex '\A\{\{\s*' "" | str replace --regex '\s*\}\}\z' "") line: $number }
        } else if ($piece.text | str starts-with "{{") {
          fail $file $number "a tag is not closed, or has a bracket in it" 'close it with }} on the same line; a literal {{ is written {{ "{{" }}'
        } else {
          { text: $piece.text line: $number }
        }
      })
      $tokens | append (if $end == "" { [] } else { [{ text: $end line: $number }] })
    }
  } | flatten
}

# The nodes from a token on up to the tag that ends the block, and which token that is.
def parse-block [
  tokens: list<any> # All tokens
  start: int # Where the block begins
  kind: string # if, each, or empty for the whole template
  file: string # What errors call the template
]: nothing -> record<nodes: list<any>, next: int, end: string> {
  mut nodes = []
  mut at = $start
  while $at < ($tokens | length) {
    let token = ($tokens | get $at)
    if $token.text? != null {
      $nodes = ($nodes | append { text: $token.text })
      $at += 1
      continue
    }
    if $token.tag == "else" or ($token.tag | str starts-with "/") {
      let fits = ($token.tag == $"/($kind)" or ($token.tag == "else" and $kind == "if"))
      if not $fits {
        fail $file $token.line $"{{($token.tag)}} closes nothing that is open" (if $kind == "" { "no block is open here" } else { $"the block that is open is #($kind)" })
      }
      return { nodes: $nodes next: ($at + 1) end: $token.tag }
    }
    let opens = ($token.tag | parse --regex '\A#(?P<kind>if|each)\s+(?P<path>\S+)\z')
    if ($opens | is-empty) {
      $nodes = ($nodes | append { value: $token.tag line: $token.line })
      $at += 1
      continue
    }
    let block = (parse-block $tokens ($at + 1) $opens.0.kind $file)
    let other = if $block.end == "else" { parse-block $tokens $block.next "if" $file } else { { nodes: [] next: $block.next end: $block.end } }
    if $other.end != $"/($opens.0.kind)" {
      fail $file $token.line $"{{($token.tag)}} is not closed" $"write {{/($opens.0.kind)}} where it ends"
    }
    $nodes = ($nodes | append { block: $opens.0.kind path: $opens.0.path line: $token.line nodes: $block.nodes other: $other.nodes })
    $at = $other.next
  }
  { nodes: $nodes next: $at end: "" }
}

# The text of nodes; names are looked for in the scopes from the last one back.
def render [
  nodes: list<any> # What `parse-block` made
  scopes: list<any> # The data, and the items of the blocks around
  file: string # What errors call the template
]: nothing -> string {
  $nodes | each {|node|
    if $node.text? != null {
      $node.text
    } else if $node.value? != null {
      shown (look-up $node.value $scopes $file $node.line) $node.value $file $node.line
    } else {
      let value = (look-up $node.path $scopes $file $node.line)
      if $node.block == "if" {
        let none = ($value in [null false 0 ""] or ($value | is-empty))
        render (if $none { $node.other } else { $node.nodes }) $scopes $file
      } else {
        if ($value | describe) !~ '\A(list|table)' {
          fail $file $node.line $"#each ($node.path): it is no list" "give a list in the data"
        }
        $value | enumerate | each {|item|
          render $node.nodes ($scopes | append { item: $item.item number: ($item.index + 1) }) $file
        } | str join
      }
    }
  } | str join
}

# What a name means.
def look-up [
  path: string # Such as `site.port`, `.`, `.port` or `@number`
  scopes: list<any> # The data, and the items of the blocks around
  file: string # What errors call the template
  line: int # Where the name is
]: nothing -> any {
  if $path =~ '\A".*"\z' { return ($path | str substring 1..-2) }
  if $path !~ '\A(@number|@first|\.|\.?[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z_][A-Za-z0-9_-]*)*)\z' {
    fail $file $line $"($path | to json) is no name" 'write a name such as site.port; a text in quotes is taken as it is'
  }
  let inner = ($scopes | skip 1 | last 1)
  if ($path starts-with ".") or ($path starts-with "@") {
    if ($inner | is-empty) { fail $file $line $"($path) has a meaning only inside #each" "write the name of a value" }
    if $path == "@number" { return $inner.0.number }
    if $path == "@first" { return ($inner.0.number == 1) }
    if $path == "." { return $inner.0.item }
    return (descend $inner.0.item ($path | str substring 1.. | split row ".") $path $file $line)
  }
  descend $scopes.0 ($path | split row ".") $path $file $line
}

# The value that is reached from another by names.
def descend [
  from: any # Where the names start
  names: list<string> # The names in their order
  path: string # The whole path, for errors
  file: string # What errors call the template
  line: int # Where the path is
]: nothing -> any {
  mut value = $from
  for name in $names {
    let known = if ($value | describe) starts-with record { $value | columns } else { [] }
    if $name not-in $known {
      fail $file $line $"the data has no ($path): ($name | to json) is not there" $"known there: ($known | str join ', ')"
    }
    $value = ($value | get $name)
  }
  $value
}

# A value as text.
def shown [
  value: any # The value
  path: string # The path that led to it, for errors
  file: string # What errors call the template
  line: int # Where the path is
]: nothing -> string {
  if ($value | describe) not-in [string int float bool] {
    fail $file $line $"($path) is no text or number but ($value | describe)" "use #each for a list, and a longer name for what is in a record"
  }
  $value | into string
}

# Raise an error with file and line.
def fail [
  file: string # What errors call the template
  line: int # Where it is
  msg: string # What is wrong
  help: string # What to do
]: nothing -> any {
  error make { msg: $"($file):($line): ($msg)" code: "provisioning::templates::invalid-template" help: $help }
  null
}
