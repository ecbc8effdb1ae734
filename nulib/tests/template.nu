# Tests of lib/template.nu.

use std/assert
use ../lib/template.nu [fill-template]

const data = {
  name: "web-1"
  port: 80
  on: true
  off: false
  none: []
  site: {domain: "example.org"}
  hosts: [{name: "a" port: 1} {name: "b" port: 2}]
  words: ["x" "y"]
}

# What is wrong with a template: its message, or null.
def refusal [
  template: string # The template
]: nothing -> any {
  try { fill-template $template $data --file "f.tmpl"; null } catch {|error|
    mut found = $error.details
    while ($found.inner | is-not-empty) { $found = ($found.inner | first) }
    $found.msg
  }
}

export def "test values are put in" [] {
  assert equal (fill-template "{{name}} {{ port }} {{ on }} {{ site.domain }}" $data) "web-1 80 true example.org"
}

export def "test all else stays as it is" [] {
  let text = "a { b } $c `d` \\ 'e' \"f\" }} %{g}\n\n  h\n"
  assert equal (fill-template $text $data) $text
  assert equal (fill-template '{{ "{{" }} {{ "it is" }}' $data) "{{ it is"
}

export def "test values are never read as templates" [] {
  assert equal (fill-template "{{ x }}" { x: "{{ name }} $(id)" }) "{{ name }} $(id)"
}

export def "test if takes one of two parts" [] {
  let template = "{{#if on}}1{{else}}2{{/if}}{{#if off}}3{{else}}4{{/if}}{{#if none}}5{{/if}}{{#if hosts}}6{{/if}}"
  assert equal (fill-template $template $data) "146"
}

export def "test each goes through a list" [] {
  let template = "{{#each hosts}}{{#if @first}}{{else}}, {{/if}}{{ @number }} {{ .name }}:{{ .port }} of {{ name }}{{/each}}"
  assert equal (fill-template $template $data) "1 a:1 of web-1, 2 b:2 of web-1"
  assert equal (fill-template "{{#each words}}<{{ . }}>{{/each}}" $data) "<x><y>"
  assert equal (fill-template "{{#each none}}x{{/each}}" $data) ""
}

export def "test blocks stand inside blocks" [] {
  let template = "{{#each words}}{{#each hosts}}{{ .name }}{{#if on}}!{{/if}}{{/each}};{{/each}}"
  assert equal (fill-template $template $data) "a!b!;a!b!;"
}

export def "test a line with a block tag alone leaves nothing" [] {
  assert equal (fill-template "a\n  {{#if on}}\nb\n{{else}}\nc\n{{/if}}  \nd\n" $data) "a\nb\nd\n"
  assert equal (fill-template "{{#each words}}\n- {{ . }}\n{{/each}}\n" $data) "- x\n- y\n"
}

export def "test undefined names are errors with their line" [] {
  assert str contains (refusal "a\n\n{{ nme }}") "f.tmpl:3: the data has no nme"
  assert str contains (refusal "{{#if nme}}{{/if}}") "f.tmpl:1: the data has no nme"
  assert str contains (refusal "\n{{#each hosts}}\n{{ .prt }}\n{{/each}}") "f.tmpl:3: the data has no .prt"
  assert str contains (refusal "{{ site.dom }}") "the data has no site.dom"
  assert str contains (refusal "{{ name.x }}") "the data has no name.x"
}

export def "test what is no template is an error with its line" [] {
  for case in [
    ["\n{{#if on}}\n" "2: {{#if on}} is not closed"]
    ["{{#each hosts}}" "1: {{#each hosts}} is not closed"]
    ["a\n{{/if}}" "2: {{/if}} closes nothing"]
    ["{{#if on}}{{/each}}" "1: {{/each}} closes nothing"]
    ["{{#each words}}{{else}}{{/each}}" "1: {{else}} closes nothing"]
    ["{{else}}" "1: {{else}} closes nothing"]
    ["a {{ name" "1: a tag is not closed"]
    ["{{ hosts }}" "1: hosts is no text or number"]
    ["{{#each name}}{{/each}}" "1: #each name: it is no list"]
    ["{{ .name }}" "1: .name has a meaning only inside #each"]
    ["{{ $(id) }}" "is no name"]
    ["{{ name | x }}" "is no name"]
    ["{{#with x}}" "is no name"]
  ] {
    assert str contains (refusal $case.0 | default "accepted") $case.1
  }
}
