# Looking again and again, until something is well or the time is over.

# Look until it is well; an error says what was in the way at the last look.
#
# The closure returns null when all is well, and else a text that says what is
# not. `seconds` of the answer is how long it took.
export def until-well [
  what: string # What is looked at, as the error says it
  look: closure # Returns null, or what is in the way
  --within: duration # So long at most
  --every: duration # Between two looks
]: nothing -> record<looks: int, seconds: float> {
  if $within < 0sec or $every < 10ms {
    error make {
      msg: $"cannot look for ($within) every ($every)"
      code: "provisioning::checks::invalid-interval"
      help: "give --within 0sec or more and --every 10ms or more"
    }
  }
  let begun = (date now)
  mut looks = 1
  mut missing = (do $look)
  while $missing != null and (date now) - $begun + $every <= $within {
    sleep $every
    $looks = $looks + 1
    $missing = (do $look)
  }
  let spent = ((date now) - $begun)
  if $missing != null {
    error make {
      msg: $"($what): ($missing), after ($looks) looks in ($spent)"
      code: "provisioning::checks::unhealthy"
      help: "see to it that it comes up, or give it longer: --within 5min"
    }
  }
  { looks: $looks seconds: ($spent / 1sec) }
}
