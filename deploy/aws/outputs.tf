output "proxy" {
  description = "What clients and the SASE's forward-to-proxy are given."
  value       = "${local.proxy_name}:${local.port}"
}

output "egress_addresses" {
  description = "What destinations put on their allow lists. Give them all, also with economy: the others are where traffic goes after a failure."
  value       = [for zone in keys(local.place) : aws_eip.nat[zone].public_ip]
}

output "proxy_addresses" {
  description = "The load balancer's address in each zone that is in use."
  value       = local.nlb_addresses
}

output "ranges_held_by" {
  description = "Which locks hold the list of ranges, from the outside in."
  value       = concat(local.acl_holds_ranges ? ["network ACL"] : [], ["security group", "proxy"])
}

output "probes_inside" {
  description = "The inside monitor's probes.toml."
  value       = local.inside_probes
}

output "probes_outside" {
  description = "The outside monitor's probes.toml; with outside = \"elsewhere\" it goes there: terraform output -raw probes_outside"
  value       = local.outside_probes
}

output "proxy_files" {
  description = "The proxy's own files, as its tasks get them."
  value       = local.proxy_files
}

output "beacon_key_secret" {
  description = "Where the beacon's key is to be put, once."
  value       = aws_secretsmanager_secret.beacon_key.arn
}

output "alarms" {
  description = "The topic of all alarms, for subscriptions of your own."
  value       = aws_sns_topic.alarms.arn
}

output "datadog_role" {
  description = "What Datadog's AWS integration asks for."
  value       = one(aws_iam_role.datadog[*].name)
}
