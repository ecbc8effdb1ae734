# Tests of lib/cluster.nu.

use std/assert
use ../lib/cluster.nu [plan-creation plan-deletion read-cluster with-dependencies]

const written = {
  groups: {
    lb: { servers: ["edge"] taskservs: ["haproxy"] after: ["web"] }
    web: {
      servers: 2
      taskservs: [{ name: "nginx" data: { port: 8080 } }]
      create: { plan: "2xCPU-4GB" }
      gates: [{ operation: "checks.tcp" params: { host: "{ip}" port: 8080 } each: true } { operation: "selftest.noop" }]
    }
  }
}
const depends = { nginx: ["os"] haproxy: ["os"] os: [] }

# What is wrong with a cluster, by its code and message; null if nothing is.
def refusal [
  written: record # What is written of it
]: nothing -> any {
  try { read-cluster site $written; null } catch {|error|
    mut found = $error.details
    while ($found.inner | is-not-empty) { $found = ($found.inner | first) }
    $found.msg
  }
}

export def "test a cluster becomes tasks" [] {
  let tasks = (plan-creation (read-cluster site $written) prod $depends)
  assert equal ($tasks | get id) [
    site-web-1_create site-web-1_wait site-web-1_os site-web-1_nginx
    site-web-2_create site-web-2_wait site-web-2_os site-web-2_nginx
    web_gate-1_site-web-1 web_gate-1_site-web-2 web_gate-2
    edge_create edge_wait edge_os edge_haproxy
  ]
  let by_id = ($tasks | reduce --fold {} {|task all| $all | insert $task.id $task })
  assert equal ($by_id | get site-web-1_create) {
    id: "site-web-1_create" operation: "servers.create"
    params: { plan: "2xCPU-4GB" name: "site-web-1" infra: "prod" } depends_on: []
  }
  assert equal ($by_id | get site-web-1_nginx | get params.data) { port: 8080 }
  assert equal ($by_id | get site-web-1_nginx | get depends_on) [site-web-1_os]
  assert equal ($by_id | get web_gate-1_site-web-2 | get params.host) "${tasks.site-web-2_create.result.ip}"
  assert equal ($by_id | get web_gate-1_site-web-2 | get depends_on) [site-web-1_nginx site-web-2_nginx]
  assert equal ($by_id | get web_gate-2 | get depends_on) [web_gate-1_site-web-1 web_gate-1_site-web-2]
  assert equal ($by_id | get edge_create | get depends_on) [web_gate-2]
}

export def "test ids of long names are short enough and stay different" [] {
  let long = ("a" | fill --width 62 --character b)
  let written = { groups: { $long: { servers: [$"($long)1" $"($long)2"] taskservs: [nginx] gates: [{ operation: "checks.tcp" params: { host: "{ip}" } each: true }] } } }
  let tasks = (plan-creation (read-cluster site $written) prod $depends)
  let ids = ($tasks | get id)
  assert (($ids | all {|id| $id =~ '\A[a-z0-9][a-z0-9_-]{0,63}\z' })) ($ids | to json)
  assert equal ($ids | uniq | length) 10
  assert equal ($tasks | get 8.params.host) $"${tasks.($ids.0).result.ip}"
  assert equal ($tasks | get 1.depends_on) [$ids.0]
}

export def "test the same data gives the same tasks" [] {
  let cluster = (read-cluster site $written)
  assert equal (plan-creation $cluster prod $depends) (plan-creation $cluster prod $depends)
}

export def "test who waits for a wide group waits for one task" [] {
  let wide = { groups: { a: { servers: 50 } b: { servers: 50 after: ["a"] } } }
  let tasks = (plan-creation (read-cluster site $wide) prod {})
  assert equal ($tasks | length) 101
  assert equal ($tasks | where {|task| $task.id | str starts-with "site-b-" } | each {|task| $task.depends_on } | uniq) [[a_done]]
}

export def "test deletion is the reverse" [] {
  let tasks = (plan-deletion (read-cluster site $written) prod $depends local)
  let by_id = ($tasks | reduce --fold {} {|task all| $all | insert $task.id $task.depends_on })
  assert equal $by_id { "site-web-1_delete": [edge_delete] "site-web-2_delete": [edge_delete] edge_delete: [] }
}

export def "test what stays is cleaned before it is let go" [] {
  let tasks = (plan-deletion (read-cluster site $written) prod $depends ssh)
  let by_id = ($tasks | reduce --fold {} {|task all| $all | insert $task.id $task.depends_on })
  assert equal ($by_id | get site-web-1_nginx) [edge_delete]
  assert equal ($by_id | get site-web-1_os) [site-web-1_nginx]
  assert equal ($by_id | get site-web-1_delete) [site-web-1_os]
}

export def "test dependencies come first and once" [] {
  let wanted = [{ name: "nginx" data: {} } { name: "os" data: { x: 1 } } { name: "haproxy" data: {} }]
  assert equal (with-dependencies $wanted $depends | get name) [os nginx haproxy]
  assert equal (with-dependencies $wanted $depends | first | get data) { x: 1 }
}

export def "test what is no cluster is refused" [] {
  for case in [
    [{} "has no groups"]
    [{ groups: { web: {} } } "no servers"]
    [{ groups: { web: { servers: 0 } } } "no servers"]
    [{ groups: { web: { servers: ["a" "a"] } } } "has a twice"]
    [{ groups: { web: { servers: 1 after: ["db"] } } } "has no group db"]
    [{ groups: { a: { servers: 1 after: ["b"] } b: { servers: 1 after: ["a"] } } } "wait for each other: a, b"]
    [{ groups: { a: { servers: ["A"] } } } "is not a valid server name"]
  ] {
    assert str contains (refusal $case.0 | default "accepted") $case.1
  }
}
