# What the state renders: equal to examples/, which the repository's own tests hand to `mustnot config check` and `mustnot proxy lint`.
# After a change on purpose: `./check.sh --bless` writes examples/ anew.

mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  ranges_file   = "tests/ranges/plain.txt"
  mustnot_image = "example.com/mustnot:0.1.0"
  squid_image   = "example.com/squid:1"
}

run "three_zones" {
  command = plan

  variables {
    domain      = { zone_id = "Z0123456789", name = "proxy.example.com" }
    admin_pages = { crm = "https://crm.example.com/health" }
    published_ranges = {
      url     = "https://ranges.example.com/egress.json"
      pointer = "/prefixes/*/ip_prefix"
      besides = ["192.0.2.7/32"]
    }
  }

  assert {
    condition     = output.probes_inside == try(file("examples/three-zones/inside.toml"), "")
    error_message = "examples/three-zones/inside.toml is not what the state renders, which is:\n${output.probes_inside}"
  }

  assert {
    condition     = output.probes_outside == try(file("examples/three-zones/outside.toml"), "")
    error_message = "examples/three-zones/outside.toml is not what the state renders, which is:\n${output.probes_outside}"
  }

  assert {
    condition     = "${output.proxy_files["squid.conf"]}\n" == try(file("examples/three-zones/squid/squid.conf"), "")
    error_message = "examples/three-zones/squid/squid.conf is not what the state renders, which is:\n${output.proxy_files["squid.conf"]}\n"
  }

  assert {
    condition     = "${output.proxy_files["allow_from.txt"]}\n" == try(file("examples/three-zones/squid/allow_from.txt"), "")
    error_message = "examples/three-zones/squid/allow_from.txt is not what the state renders, which is:\n${output.proxy_files["allow_from.txt"]}\n"
  }

  assert {
    condition     = "${output.proxy_files["load_balancers.txt"]}\n" == try(file("examples/three-zones/squid/load_balancers.txt"), "")
    error_message = "examples/three-zones/squid/load_balancers.txt is not what the state renders, which is:\n${output.proxy_files["load_balancers.txt"]}\n"
  }

  assert {
    condition     = "${output.proxy_files["deny_to.txt"]}\n" == try(file("examples/three-zones/squid/deny_to.txt"), "")
    error_message = "examples/three-zones/squid/deny_to.txt is not what the state renders, which is:\n${output.proxy_files["deny_to.txt"]}\n"
  }
}

run "economy" {
  command = plan

  variables {
    economy        = true
    proxy          = "mustnot"
    client_address = "preserve"
  }

  assert {
    condition     = output.probes_inside == try(file("examples/economy/inside.toml"), "")
    error_message = "examples/economy/inside.toml is not what the state renders, which is:\n${output.probes_inside}"
  }

  assert {
    condition     = output.probes_outside == try(file("examples/economy/outside.toml"), "")
    error_message = "examples/economy/outside.toml is not what the state renders, which is:\n${output.probes_outside}"
  }

  assert {
    condition     = output.proxy_files["probes.toml"] == try(file("examples/economy/proxy.toml"), "")
    error_message = "examples/economy/proxy.toml is not what the state renders, which is:\n${output.proxy_files["probes.toml"]}"
  }
}

run "ipv6" {
  command = plan

  variables {
    ranges_file = "tests/ranges/with-ipv6.txt"
    ipv6        = true
    proxy       = "mustnot"
    domain      = { zone_id = "Z0123456789", name = "proxy.example.com" }
  }

  assert {
    condition     = output.probes_inside == try(file("examples/ipv6/inside.toml"), "")
    error_message = "examples/ipv6/inside.toml is not what the state renders, which is:\n${output.probes_inside}"
  }

  assert {
    condition     = output.probes_outside == try(file("examples/ipv6/outside.toml"), "")
    error_message = "examples/ipv6/outside.toml is not what the state renders, which is:\n${output.probes_outside}"
  }

  assert {
    condition     = output.proxy_files["probes.toml"] == try(file("examples/ipv6/proxy.toml"), "")
    error_message = "examples/ipv6/proxy.toml is not what the state renders, which is:\n${output.proxy_files["probes.toml"]}"
  }
}

run "elsewhere" {
  command = plan

  variables {
    outside        = "elsewhere"
    beacon_urls    = ["http://beacon.example.com:443/"]
    client_address = "preserve"
    admin_pages    = { crm = "https://crm.example.com/health" }
  }

  assert {
    condition     = output.probes_inside == try(file("examples/elsewhere/inside.toml"), "")
    error_message = "examples/elsewhere/inside.toml is not what the state renders, which is:\n${output.probes_inside}"
  }

  assert {
    condition     = output.probes_outside == try(file("examples/elsewhere/outside.toml"), "")
    error_message = "examples/elsewhere/outside.toml is not what the state renders, which is:\n${output.probes_outside}"
  }

  assert {
    condition     = "${output.proxy_files["squid.conf"]}\n" == try(file("examples/elsewhere/squid/squid.conf"), "")
    error_message = "examples/elsewhere/squid/squid.conf is not what the state renders, which is:\n${output.proxy_files["squid.conf"]}\n"
  }

  assert {
    condition     = "${output.proxy_files["allow_from.txt"]}\n" == try(file("examples/elsewhere/squid/allow_from.txt"), "")
    error_message = "examples/elsewhere/squid/allow_from.txt is not what the state renders, which is:\n${output.proxy_files["allow_from.txt"]}\n"
  }

  assert {
    condition     = "${output.proxy_files["load_balancers.txt"]}\n" == try(file("examples/elsewhere/squid/load_balancers.txt"), "")
    error_message = "examples/elsewhere/squid/load_balancers.txt is not what the state renders, which is:\n${output.proxy_files["load_balancers.txt"]}\n"
  }

  assert {
    condition     = "${output.proxy_files["deny_to.txt"]}\n" == try(file("examples/elsewhere/squid/deny_to.txt"), "")
    error_message = "examples/elsewhere/squid/deny_to.txt is not what the state renders, which is:\n${output.proxy_files["deny_to.txt"]}\n"
  }
}
