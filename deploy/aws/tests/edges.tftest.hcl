# The borders of each variable, both sides: what is refused is refused with a reason, and its neighbour is taken.

mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  ranges_file   = "tests/ranges/plain.txt"
  mustnot_image = "example.com/mustnot:0.1.0"
  squid_image   = "example.com/squid:1"
}

# ---- who may use it --------------------------------------------------------------------------------------------------

run "no_file" {
  command = plan

  variables {
    ranges_file = "tests/ranges/missing.txt"
  }

  expect_failures = [var.ranges_file]
}

run "no_name_of_a_file" {
  command = plan

  variables {
    ranges_file = ""
  }

  expect_failures = [var.ranges_file]
}

run "no_range" {
  command = plan

  variables {
    ranges_file = "tests/ranges/empty.txt"
  }

  expect_failures = [terraform_data.ranges]
}

run "everybody" {
  command = plan

  variables {
    ranges_file = "tests/ranges/everybody.txt"
  }

  expect_failures = [terraform_data.ranges]
}

run "everybody_by_ipv6" {
  command = plan

  variables {
    ranges_file = "tests/ranges/everybody-ipv6.txt"
  }

  expect_failures = [terraform_data.ranges, check.no_range_is_left_out]
}

run "everybody_in_halves" {
  command = plan

  variables {
    ranges_file = "tests/ranges/everybody-in-halves.txt"
  }

  expect_failures = [terraform_data.ranges]
}

run "host_bits" {
  command = plan

  variables {
    ranges_file = "tests/ranges/host-bits.txt"
  }

  expect_failures = [terraform_data.ranges]
}

run "a_bare_address" {
  command = plan

  variables {
    ranges_file = "tests/ranges/bare-address.txt"
  }

  expect_failures = [terraform_data.ranges]
}

run "a_name" {
  command = plan

  variables {
    ranges_file = "tests/ranges/name.txt"
  }

  expect_failures = [terraform_data.ranges]
}

run "json_that_is_no_list" {
  command = plan

  variables {
    ranges_file = "tests/ranges/object.json"
  }

  expect_failures = [terraform_data.ranges]
}

run "json_that_is_broken" {
  command = plan

  variables {
    ranges_file = "tests/ranges/broken.json"
  }

  expect_failures = [terraform_data.ranges]
}

run "ipv6_alone" {
  command = plan

  variables {
    ranges_file = "tests/ranges/only-ipv6.txt"
    ipv6        = true
  }

  expect_failures = [terraform_data.ranges]
}

run "a_json_list" {
  command = plan

  variables {
    ranges_file = "tests/ranges/list.json"
  }

  assert {
    condition     = local.allowed == ["198.51.100.0/24", "192.0.2.7/32", "203.0.113.1/32", "203.0.113.2/32", "203.0.113.3/32"]
    error_message = "A JSON list gives the same as lines, the widest first, and the own addresses last."
  }
}

# The article's three zones, and one list in every lock.
run "one_list_for_all" {
  command = plan

  assert {
    condition     = toset([for r in aws_network_acl.public.ingress : r.cidr_block if r.from_port == 3128]) == toset(local.allowed)
    error_message = "The ACL admits the listed ranges to 3128, and nobody else."
  }

  assert {
    condition     = toset([for e in aws_ec2_managed_prefix_list.v4.entry : e.cidr]) == toset(local.allowed)
    error_message = "The security group holds the same list."
  }

  assert {
    condition     = output.proxy_files["allow_from.txt"] == join("\n", local.allowed)
    error_message = "The proxy holds the same list."
  }

  assert {
    condition     = length([for r in aws_network_acl.public.ingress : r if r.action == "allow" && try(r.ipv6_cidr_block, "") != "" && r.ipv6_cidr_block != null]) == 0
    error_message = "IPv6 is closed unless it is asked for."
  }

  assert {
    condition     = aws_lb.proxy.ip_address_type == "ipv4" && length(aws_ec2_managed_prefix_list.v6) == 0
    error_message = "IPv6 is closed unless it is asked for."
  }

  assert {
    condition     = output.ranges_held_by == ["network ACL", "security group", "proxy"]
    error_message = "All three locks hold the list."
  }
}

run "ipv6_in_the_file_but_not_asked_for" {
  command = plan

  variables {
    ranges_file = "tests/ranges/with-ipv6.txt"
  }

  expect_failures = [check.no_range_is_left_out]
}

run "ipv6" {
  command = plan

  variables {
    ranges_file = "tests/ranges/with-ipv6.txt"
    ipv6        = true
  }

  assert {
    condition     = contains([for r in aws_network_acl.public.ingress : r.ipv6_cidr_block], "2001:db8:100::/40")
    error_message = "The ACL admits the IPv6 range."
  }

  assert {
    condition     = !contains([for r in aws_network_acl.public.ingress : r.ipv6_cidr_block if r.from_port == 3128], "::/0")
    error_message = "The ACL admits no other by IPv6."
  }

  assert {
    condition     = aws_lb.proxy.ip_address_type == "dualstack"
    error_message = "The load balancer has IPv6."
  }

  assert {
    condition     = strcontains(output.proxy_files["allow_from.txt"], "2001:db8:100::/40")
    error_message = "The proxy lets it in."
  }
}

run "a_published_list_that_anybody_on_the_way_could_write" {
  command = plan

  variables {
    published_ranges = { url = "http://ranges.example.com/egress.json" }
  }

  expect_failures = [var.published_ranges]
}

# ---- an ACL that is full ----------------------------------------------------------------------------------------------

run "as_many_as_an_acl_takes" {
  command = plan

  variables {
    ranges_file = "tests/ranges/twelve.txt"
  }

  assert {
    condition     = local.acl_holds_ranges && local.acl_wanted == local.acl_room
    error_message = "Twelve ranges and three addresses of its own are all that fits."
  }

  assert {
    condition     = length(aws_network_acl.public.ingress) + 1 <= 20 - 2
    error_message = "With what comes with them and the default denials, twenty rules."
  }
}

run "one_more_than_an_acl_takes" {
  command = plan

  variables {
    ranges_file = "tests/ranges/thirteen.txt"
  }

  expect_failures = [check.acl_holds_the_ranges]
}

run "then_the_security_group_alone" {
  command = plan

  variables {
    ranges_file = "tests/ranges/thirteen.txt"
  }

  expect_failures = [check.acl_holds_the_ranges]

  assert {
    condition     = [for r in aws_network_acl.public.ingress : r.cidr_block if r.from_port == 3128] == ["0.0.0.0/0"]
    error_message = "Past its room the ACL leaves 3128 to the security group."
  }

  assert {
    condition     = length([for e in aws_ec2_managed_prefix_list.v4.entry : e]) == 16
    error_message = "The security group holds all of them."
  }

  assert {
    condition     = output.ranges_held_by == ["security group", "proxy"]
    error_message = "It says so."
  }

  assert {
    condition     = aws_vpc_security_group_ingress_rule.nlb_v4.cidr_ipv4 == null
    error_message = "The security group opens to the list alone."
  }
}

run "a_raised_acl_quota" {
  command = plan

  variables {
    ranges_file    = "tests/ranges/thirteen.txt"
    acl_rule_quota = 21
  }

  assert {
    condition     = local.acl_holds_ranges
    error_message = "A raised quota gives room."
  }
}

run "no_such_acl_quota" {
  command = plan

  variables {
    acl_rule_quota = 41
  }

  expect_failures = [var.acl_rule_quota]
}

run "as_many_as_a_security_group_takes" {
  command = plan

  variables {
    ranges_file = "tests/ranges/fifty-seven.txt"
  }

  expect_failures = [check.acl_holds_the_ranges]

  assert {
    condition     = local.security_group_wanted == 60
    error_message = "57 ranges and three addresses of its own."
  }
}

run "more_than_a_security_group_takes" {
  command = plan

  variables {
    ranges_file = "tests/ranges/fifty-eight.txt"
  }

  expect_failures = [terraform_data.ranges, check.acl_holds_the_ranges]
}

run "a_raised_security_group_quota" {
  command = plan

  variables {
    ranges_file               = "tests/ranges/fifty-eight.txt"
    security_group_rule_quota = 100
  }

  expect_failures = [check.acl_holds_the_ranges]
}

run "no_such_security_group_quota" {
  command = plan

  variables {
    security_group_rule_quota = 1001
  }

  expect_failures = [var.security_group_rule_quota]
}

# ---- zones ------------------------------------------------------------------------------------------------------------

run "the_articles_layout" {
  command = plan

  assert {
    condition     = [for z in local.zones : aws_subnet.public[z].cidr_block] == ["192.168.200.0/28", "192.168.200.16/28", "192.168.200.32/28"]
    error_message = "The public subnets are the article's."
  }

  assert {
    condition     = [for z in local.zones : aws_subnet.private[z].cidr_block] == ["192.168.201.0/24", "192.168.202.0/24", "192.168.203.0/24"]
    error_message = "The private subnets are the article's."
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 3 && length(distinct([for z in local.zones : aws_eip.nat[z].public_ip])) == 3
    error_message = "A NAT gateway and an address a zone."
  }

  assert {
    condition     = aws_lb.proxy.enable_cross_zone_load_balancing
    error_message = "Cross-zone."
  }

  assert {
    condition     = aws_ecs_service.proxy.desired_count == 3 && aws_cloudwatch_metric_alarm.healthy.threshold == 3
    error_message = "Three tasks, and fewer than three are an alarm."
  }
}

run "economy" {
  command = plan

  variables {
    economy = true
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 1 && length(aws_subnet.private) == 1
    error_message = "One zone runs."
  }

  assert {
    condition     = length(aws_eip.nat) == 3 && length(output.egress_addresses) == 3
    error_message = "No fixed address is given up."
  }

  assert {
    condition     = aws_ecs_service.proxy.desired_count == 1 && aws_cloudwatch_metric_alarm.healthy.threshold == 1
    error_message = "One task, and its alarm."
  }

  assert {
    condition     = aws_subnet.private["ap-northeast-1a"].cidr_block == "192.168.201.0/24"
    error_message = "The zone keeps its place."
  }
}

run "economy_with_three_tasks" {
  command = plan

  variables {
    economy = true
    tasks   = 3
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.healthy.threshold == 3
    error_message = "The alarm follows the tasks."
  }
}

run "one_zone" {
  command = plan

  variables {
    zones = ["ap-northeast-1c"]
  }

  assert {
    condition     = length(aws_eip.nat) == 1 && aws_subnet.public["ap-northeast-1c"].cidr_block == "192.168.200.0/28"
    error_message = "One zone is enough."
  }
}

run "no_zone" {
  command = plan

  variables {
    zones = []
  }

  expect_failures = [var.zones]
}

run "four_zones" {
  command = plan

  variables {
    zones = ["ap-northeast-1a", "ap-northeast-1b", "ap-northeast-1c", "ap-northeast-1d"]
  }

  expect_failures = [var.zones]
}

run "a_zone_twice" {
  command = plan

  variables {
    zones = ["ap-northeast-1a", "ap-northeast-1a"]
  }

  expect_failures = [var.zones]
}

run "zones_of_another_region" {
  command = plan

  variables {
    region = "eu-central-1"
  }

  expect_failures = [var.zones]
}

run "another_network" {
  command = plan

  variables {
    vpc_cidr = "10.20.0.0/21"
  }

  assert {
    condition     = aws_subnet.private["ap-northeast-1a"].cidr_block == "10.20.1.0/24"
    error_message = "Cut by the same places."
  }
}

run "a_network_of_another_size" {
  command = plan

  variables {
    vpc_cidr = "10.20.0.0/22"
  }

  expect_failures = [var.vpc_cidr]
}

run "a_network_with_host_bits" {
  command = plan

  variables {
    vpc_cidr = "192.168.201.0/21"
  }

  expect_failures = [var.vpc_cidr]
}

# ---- who calls --------------------------------------------------------------------------------------------------------

run "proxy_protocol" {
  command = plan

  assert {
    condition     = aws_lb_target_group.proxy.proxy_protocol_v2 && aws_lb_target_group.proxy.preserve_client_ip == "false"
    error_message = "Exactly one: the PROXY protocol."
  }

  assert {
    condition     = strcontains(output.proxy_files["squid.conf"], "http_port 3128 require-proxy-header")
    error_message = "Squid demands the header."
  }

  assert {
    condition     = output.proxy_files["load_balancers.txt"] == "192.168.200.0/28\n192.168.200.16/28\n192.168.200.32/28"
    error_message = "It believes the balancer's subnets alone."
  }
}

run "preserve" {
  command = plan

  variables {
    client_address = "preserve"
  }

  assert {
    condition     = !aws_lb_target_group.proxy.proxy_protocol_v2 && aws_lb_target_group.proxy.preserve_client_ip == "true"
    error_message = "Exactly one: the client's address is kept."
  }

  assert {
    condition     = !strcontains(output.proxy_files["squid.conf"], "require-proxy-header")
    error_message = "Squid demands no header."
  }
}

run "preserve_with_mustnot" {
  command = plan

  variables {
    client_address = "preserve"
    proxy          = "mustnot"
  }

  assert {
    condition     = !strcontains(output.proxy_files["probes.toml"], "proxy_protocol_from")
    error_message = "mustnot believes no header."
  }
}

run "neither" {
  command = plan

  variables {
    client_address = "none"
  }

  expect_failures = [var.client_address]
}

run "preserve_with_ipv6" {
  command = plan

  variables {
    ranges_file    = "tests/ranges/with-ipv6.txt"
    ipv6           = true
    client_address = "preserve"
  }

  expect_failures = [var.client_address]
}

# ---- the proxy --------------------------------------------------------------------------------------------------------

run "mustnot" {
  command = plan

  variables {
    proxy       = "mustnot"
    squid_image = null
    task_cpu    = 2048
    task_memory = 4096
  }

  assert {
    condition     = aws_lb_target_group.proxy.health_check[0].protocol == "HTTP" && aws_lb_target_group.proxy.health_check[0].port == "3129"
    error_message = "Its health is asked for."
  }

  assert {
    condition     = strcontains(output.proxy_files["probes.toml"], "drain               = \"110s\"")
    error_message = "It drains within stopTimeout."
  }

  assert {
    condition     = aws_vpc_security_group_ingress_rule.tasks.to_port == 3129
    error_message = "The balancer reaches its health."
  }
}

run "squid" {
  command = plan

  assert {
    condition     = aws_lb_target_group.proxy.health_check[0].protocol == "TCP" && aws_lb_target_group.proxy.health_check[0].port == "traffic-port"
    error_message = "Its port is tried."
  }

  assert {
    condition     = strcontains(output.proxy_files["squid.conf"], "shutdown_lifetime 110 seconds")
    error_message = "It drains within stopTimeout."
  }

  assert {
    condition     = aws_vpc_security_group_ingress_rule.tasks.to_port == 3128
    error_message = "No port but its own."
  }
}

run "another_proxy" {
  command = plan

  variables {
    proxy = "tinyproxy"
  }

  expect_failures = [var.proxy]
}

run "squid_without_an_image" {
  command = plan

  variables {
    squid_image = null
  }

  expect_failures = [var.squid_image]
}

run "an_image_that_changes" {
  command = plan

  variables {
    squid_image = "example.com/squid:latest"
  }

  expect_failures = [var.squid_image]
}

run "an_image_without_a_tag" {
  command = plan

  variables {
    mustnot_image = "example.com:5000/mustnot"
  }

  expect_failures = [var.mustnot_image]
}

run "an_image_by_digest" {
  command = plan

  variables {
    mustnot_image = "example.com/mustnot@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  }
}

run "squid_on_two_cores" {
  command = plan

  variables {
    task_cpu    = 2048
    task_memory = 4096
  }

  expect_failures = [var.task_cpu]
}

run "too_little_memory" {
  command = plan

  variables {
    task_memory = 1024
  }

  expect_failures = [var.task_memory]
}

run "a_size_between_those_of_fargate" {
  command = plan

  variables {
    task_memory = 2560
  }

  expect_failures = [var.task_memory]
}

run "more_memory_than_fargate_has" {
  command = plan

  variables {
    proxy       = "mustnot"
    task_cpu    = 4096
    task_memory = 31744
  }

  expect_failures = [var.task_memory]
}

run "all_the_memory_that_fargate_has" {
  command = plan

  variables {
    proxy       = "mustnot"
    task_cpu    = 4096
    task_memory = 30720
  }
}

run "more_tasks_than_cloud_map_tells" {
  command = plan

  variables {
    max_tasks = 9
  }

  expect_failures = [var.max_tasks]
}

run "no_task" {
  command = plan

  variables {
    tasks = 0
  }

  expect_failures = [var.tasks]
}

run "more_tasks_than_at_most" {
  command = plan

  variables {
    tasks = 7
  }

  expect_failures = [var.tasks]
}

run "too_long_a_stop" {
  command = plan

  variables {
    stop_timeout = 121
  }

  expect_failures = [var.stop_timeout]
}

run "too_short_a_stop" {
  command = plan

  variables {
    stop_timeout = 59
  }

  expect_failures = [var.stop_timeout]
}

run "the_shortest_stop" {
  command = plan

  variables {
    stop_timeout = 60
    proxy        = "mustnot"
  }

  assert {
    condition     = local.drain == 50 && local.drain_lead < local.drain
    error_message = "The lead is within the drain."
  }
}

run "nothing_a_task_does_not_need" {
  command = plan

  assert {
    condition     = alltrue([for d in concat([aws_ecs_task_definition.proxy], values(aws_ecs_task_definition.monitor)) : d.task_role_arn == null])
    error_message = "No task has a role."
  }

  assert {
    condition     = alltrue([for c in local.containers : c.readonlyRootFilesystem && c.linuxParameters.capabilities.drop == ["ALL"]])
    error_message = "Every root is read-only, every capability dropped."
  }

  assert {
    condition     = alltrue([for c in local.containers : c.user != "0" if c.name != "config"])
    error_message = "Nobody runs as root but the writer of the files."
  }

  assert {
    condition     = !strcontains(aws_iam_role_policy.execution["proxy"].policy, "secretsmanager")
    error_message = "A proxy is started without the beacon's key."
  }
}

# What only AWS itself would refuse, and only half way through an apply.
run "what_aws_takes" {
  command = plan

  variables {
    ipv6 = true
  }

  assert {
    condition = alltrue([
      for d in concat(
        [for g in concat([aws_security_group.nlb, aws_security_group.tasks, aws_security_group.inside], aws_security_group.outside, aws_security_group.beacon) : g.description],
        [for r in concat([aws_vpc_security_group_ingress_rule.nlb_v4, aws_vpc_security_group_ingress_rule.tasks], aws_vpc_security_group_ingress_rule.nlb_v6, aws_vpc_security_group_ingress_rule.inside, values(aws_vpc_security_group_ingress_rule.beacon)) : r.description],
        [for r in concat([aws_vpc_security_group_egress_rule.nlb_tasks, aws_vpc_security_group_egress_rule.tasks, aws_vpc_security_group_egress_rule.inside], values(aws_vpc_security_group_egress_rule.outside), values(aws_vpc_security_group_egress_rule.beacon)) : r.description],
      ) : can(regex("^[a-zA-Z0-9. _:/()#,@+=&;{}!$*\\[\\]-]{1,255}$", d))
    ])
    error_message = "The description of a group or of a rule has a character that EC2 refuses, an apostrophe perhaps."
  }
}

run "verdicts_are_numbers" {
  command = plan

  assert {
    condition     = { for name, filter in aws_cloudwatch_log_metric_filter.verdict : name => filter.metric_transformation[0].value } == { for pair in setproduct(["inside", "outside"], ["violated", "unproven", "holds"]) : "${pair[0]}-${pair[1]}" => format("$%s", pair[1]) }
    error_message = "Each filter counts by the field that it is named for, as $violated."
  }

  assert {
    condition     = alltrue([for filter in aws_cloudwatch_log_metric_filter.verdict : filter.pattern == "[word=tally, violated, unproven, holds]"])
    error_message = "The filters read the line of config/tally.sh."
  }

  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_metric_alarm.violated : alarm.datapoints_to_alarm == 1 && alarm.evaluation_periods == 5 && alarm.treat_missing_data == "ignore"])
    error_message = "One line of five with a violation is an alarm, and silence does not end it."
  }

  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_metric_alarm.unproven : alarm.treat_missing_data == "breaching" && length(alarm.alarm_actions) == 1])
    error_message = "A monitor that says nothing is an alarm."
  }
}

# ---- the monitor and the links ----------------------------------------------------------------------------------------

run "elsewhere" {
  command = plan

  variables {
    outside     = "elsewhere"
    beacon_urls = ["http://beacon.example.com:443/"]
  }

  assert {
    condition     = length(aws_vpc.outside) == 0 && length(aws_lb.beacon) == 0 && length(aws_ecs_service.outside) == 0
    error_message = "Nothing is made for it here."
  }

  assert {
    condition     = !strcontains(output.probes_outside, "kind     = \"peer\"")
    error_message = "Without inside_url nobody is asked."
  }
}

run "elsewhere_with_a_peer" {
  command = plan

  variables {
    outside     = "elsewhere"
    beacon_urls = ["http://beacon.example.com:443/"]
    inside_url  = "https://inside-monitor.example.com/"
  }

  assert {
    condition     = strcontains(output.probes_outside, "https://inside-monitor.example.com/")
    error_message = "With it the inside monitor is the witness."
  }
}

run "elsewhere_without_a_beacon" {
  command = plan

  variables {
    outside = "elsewhere"
  }

  expect_failures = [var.beacon_urls]
}

run "a_beacon_that_the_proxy_cannot_reach" {
  command = plan

  variables {
    outside     = "elsewhere"
    beacon_urls = ["http://beacon.example.com:9891/"]
  }

  expect_failures = [var.beacon_urls]
}

run "two_beacons" {
  command = plan

  variables {
    beacon_urls = ["http://beacon.example.com:443/"]
  }

  expect_failures = [var.beacon_urls]
}

run "another_place" {
  command = plan

  variables {
    outside = "office"
  }

  expect_failures = [var.outside]
}

run "an_admin_page_without_tls" {
  command = plan

  variables {
    admin_pages = { crm = "http://crm.example.com/" }
  }

  expect_failures = [var.admin_pages]
}

run "datadog" {
  command = plan

  variables {
    datadog = { external_id = "0123456789abcdef0123456789abcdef", api_key_secret_arn = "arn:aws:secretsmanager:ap-northeast-1:123456789012:secret:datadog-AbCdEf" }
    proxy   = "mustnot"
  }

  assert {
    condition     = strcontains(aws_iam_role.datadog[0].assume_role_policy, "\"sts:ExternalId\":\"0123456789abcdef0123456789abcdef\"")
    error_message = "The role asks for the external id."
  }

  assert {
    condition     = strcontains(aws_ecs_task_definition.proxy.container_definitions, "http://127.0.0.1:9890/metrics") && strcontains(aws_ecs_task_definition.proxy.container_definitions, "DD_API_KEY")
    error_message = "The agent stands beside the proxy, and is told of its metrics."
  }

  assert {
    condition     = length([for d in jsondecode(aws_ecs_task_definition.proxy.container_definitions) : d if anytrue([for e in try(d.environment, []) : e.name == "DD_API_KEY"])]) == 0
    error_message = "The API key is a secret, not a value."
  }

  assert {
    condition = alltrue([for task, definition in aws_ecs_task_definition.monitor : alltrue([
      for c in jsondecode(definition.container_definitions) : c.logConfiguration.options["awslogs-group"] == "/egress-proxy/${task}"
    ])])
    error_message = "Each container writes to its own task's log: whoever starts it may write to no other."
  }
}

run "no_datadog" {
  command = plan

  assert {
    condition     = length(aws_iam_role.datadog) == 0 && !strcontains(aws_ecs_task_definition.proxy.container_definitions, "datadog")
    error_message = "None unless it is asked for."
  }
}

run "datadog_without_an_external_id" {
  command = plan

  variables {
    datadog = { external_id = "", api_key_secret_arn = "arn:aws:secretsmanager:ap-northeast-1:123456789012:secret:datadog-AbCdEf" }
  }

  expect_failures = [var.datadog]
}

run "a_key_instead_of_its_place" {
  command = plan

  variables {
    datadog = { external_id = "0123456789abcdef0123456789abcdef", api_key_secret_arn = "0123456789abcdef" }
  }

  expect_failures = [var.datadog]
}

run "a_long_name" {
  command = plan

  variables {
    name = "a-name-of-many-letters"
  }

  expect_failures = [var.name]
}
