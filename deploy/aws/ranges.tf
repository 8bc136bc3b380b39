# Who may use the proxy. One file, from which come the network ACL, the security group and the proxy's own list, so that a change is one commit.

locals {
  ranges_text = file(var.ranges_file)
  ranges_file = endswith(var.ranges_file, ".json") ? try(startswith(trimspace(local.ranges_text), "[") ? [for r in jsondecode(local.ranges_text) : tostring(r)] : null, null) : compact([for line in split("\n", local.ranges_text) : trimspace(split("#", line)[0])])
  ranges      = distinct(local.ranges_file == null ? [] : local.ranges_file)

  # An entry as the ACL, the prefix list and the proxy all read it: a network without host bits, spelled in the one way.
  bad_ranges  = [for r in local.ranges : r if !try(cidrsubnet(r, 0, 0) == r, false)]
  good_ranges = [for r in local.ranges : r if !contains(local.bad_ranges, r)]
  wide_ranges = [for r in local.good_ranges : r if tonumber(split("/", r)[1]) < (strcontains(r, ":") ? 20 : 8)]

  # The inside monitor calls from the NAT gateways' addresses, and is to be let in as a client is. Nothing else but the tasks leaves by them, and
  # the tasks do not tunnel to the load balancer: not to its port, not to its addresses.
  own_ranges = [for zone in local.zones : "${aws_eip.nat[zone].public_ip}/32"]

  ranges_v4 = [for r in local.good_ranges : r if !strcontains(r, ":")]
  # IPv6 is closed unless asked for, whatever the file says.
  ranges_v6     = [for r in local.good_ranges : r if strcontains(r, ":") && var.ipv6]
  closed_ranges = [for r in local.good_ranges : r if strcontains(r, ":") && !var.ipv6]

  # The widest first: of two that overlap, Squid keeps the one that stands first.
  by_width = [for k in sort([for r in concat(local.ranges_v4, local.ranges_v6) : format("%03d %s", tonumber(split("/", r)[1]), r)]) : split(" ", k)[1]]
  allowed  = concat(local.by_width, local.own_ranges)

  # What an ACL can hold: the quota, less its own three rules (replies of the tasks, path MTU by both families) and both default denials.
  acl_rules_of_its_own = 3
  acl_default_denials  = 2
  acl_room             = var.acl_rule_quota - local.acl_rules_of_its_own - local.acl_default_denials
  acl_wanted           = length(local.ranges_v4) + length(local.ranges_v6) + length(local.zones)
  acl_holds_ranges     = local.acl_wanted <= local.acl_room

  security_group_wanted = local.entries_v4 + local.entries_v6
  # A prefix list weighs what it may hold, not what it holds. By tens, so that a new range is not a new size each time.
  entries_v4 = 10 * ceil((length(local.ranges_v4) + length(local.zones)) / 10)
  entries_v6 = length(local.ranges_v6) == 0 ? 0 : 10 * ceil(length(local.ranges_v6) / 10)
}

resource "terraform_data" "ranges" {
  input = sha256(jsonencode(local.by_width))

  lifecycle {
    precondition {
      condition     = local.ranges_file != null
      error_message = "${var.ranges_file} is not a JSON list of strings. Write [\"203.0.113.0/24\", …], or lines in a file whose name does not end in .json."
    }
    precondition {
      condition     = local.ranges_file == null || length(local.ranges) > 0
      error_message = "${var.ranges_file} names no range, so nobody could use the proxy. Write the SASE's public ranges and your offices, one a line, as 203.0.113.0/24."
    }
    precondition {
      condition     = length(local.bad_ranges) == 0
      error_message = "${var.ranges_file}: not a network, or not in its one spelling: ${join(", ", local.bad_ranges)}. Write networks without host bits, as 203.0.113.0/24, one address as 203.0.113.7/32, IPv6 in short small letters."
    }
    precondition {
      condition     = length(local.wide_ranges) == 0
      error_message = "${var.ranges_file}: ${join(", ", local.wide_ranges)} lets in strangers: with it this is an open proxy. Write the SASE's own published ranges; nothing wider than /8 (IPv6: /20) is taken."
    }
    precondition {
      condition     = length(local.good_ranges) == 0 || length(local.ranges_v4) > 0
      error_message = "${var.ranges_file} has no IPv4 range. Add the SASE's IPv4 ranges: the load balancer's first address is IPv4 even with ipv6 = true."
    }
    precondition {
      condition     = local.security_group_wanted <= var.security_group_rule_quota
      error_message = "${var.ranges_file} with the proxy's own addresses weighs ${local.security_group_wanted} rules, and a security group takes ${var.security_group_rule_quota}. Merge neighbouring ranges, or have the quota \"Inbound or outbound rules per security group\" raised and write it as security_group_rule_quota."
    }
  }
}

check "acl_holds_the_ranges" {
  assert {
    condition     = local.acl_holds_ranges
    error_message = "The network ACL takes ${local.acl_room} ranges, and there are ${local.acl_wanted}: it now lets everybody come as far as port 3128 of the load balancer, where the security group (by prefix list) and the proxy turn strangers away. Merge ranges, or have \"Rules per network ACL\" raised (to 40 at most) and write it as acl_rule_quota."
  }
}

check "no_range_is_left_out" {
  assert {
    condition     = length(local.closed_ranges) == 0
    error_message = "Not let in, since ipv6 is false: ${join(", ", local.closed_ranges)}. Write ipv6 = true, or take them out of ${var.ranges_file}."
  }
}
