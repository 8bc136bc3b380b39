# ---- where, and what it is called ------------------------------------------------------------------------------------

variable "name" {
  description = "What everything made here is called."
  type        = string
  default     = "egress-proxy"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,19}$", var.name))
    error_message = "name must be 2 to 20 small letters, digits and hyphens and begin with a letter, since load balancers allow 32 characters and some are added. Write for example \"egress-proxy\"."
  }
}

variable "region" {
  description = "The region of all that is made here. Its failure is the failure of the proxy: docs/aws.md."
  type        = string
  default     = "ap-northeast-1"
}

variable "tags" {
  description = "Tags on everything, besides Project."
  type        = map(string)
  default     = {}
}

# ---- who may use the proxy -------------------------------------------------------------------------------------------

variable "ranges_file" {
  description = "The one file that says who may use the proxy: the SASE's public ranges and the offices. Lines (`#` begins a comment), or a JSON list of strings (*.json)."
  type        = string

  validation {
    condition     = try(fileexists(var.ranges_file), false)
    error_message = "ranges_file names no file, so nobody could use the proxy. Write the SASE's public ranges and your offices into a file, one a line, as 203.0.113.0/24, and name it here."
  }
}

variable "published_ranges" {
  description = "Where the SASE publishes its ranges, to be held against ranges_file: { url = \"https://…\", pointer = \"/prefixes/*/ip_prefix\", besides = [your offices] }. Null: nobody tells when they change."
  type = object({
    url     = string
    pointer = optional(string)
    besides = optional(list(string), [])
  })
  default = null

  validation {
    condition     = var.published_ranges == null ? true : can(regex("^https://[^/@]+/", var.published_ranges.url))
    error_message = "published_ranges.url must be an https:// address without a password, as https://ranges.example.com/ipv4.json: over anything else the list is whoever's stands on the way."
  }
}

variable "acl_rule_quota" {
  description = "The account's quota \"Rules per network ACL\": 20, or up to 40 on request. It holds for each direction; both default denials count."
  type        = number
  default     = 20

  validation {
    condition     = var.acl_rule_quota >= 20 && var.acl_rule_quota <= 40
    error_message = "acl_rule_quota must be 20 to 40: AWS gives 20, and no more than 40. Past it the security group alone holds the ranges; nothing need be raised for that."
  }
}

variable "security_group_rule_quota" {
  description = "The account's quota \"Inbound or outbound rules per security group\": 60 unless raised. A prefix list counts with all its entries."
  type        = number
  default     = 60

  validation {
    condition     = var.security_group_rule_quota >= 60 && var.security_group_rule_quota <= 1000
    error_message = "security_group_rule_quota must be 60 to 1000. Write what Service Quotas shows for your account; it is 60 unless you have asked for more."
  }
}

variable "ipv6" {
  description = "Whether clients may come by IPv6. What leaves does so by IPv4 whatever is said here, since only that address is fixed."
  type        = bool
  default     = false
}

# ---- the network -----------------------------------------------------------------------------------------------------

variable "vpc_cidr" {
  description = "The VPC's own network, a /21. Of it come the load balancer's /28 and the tasks' /24 in each zone."
  type        = string
  default     = "192.168.200.0/21"

  validation {
    condition     = try(cidrsubnet(var.vpc_cidr, 0, 0) == var.vpc_cidr && split("/", var.vpc_cidr)[1] == "21" && can(cidrnetmask(var.vpc_cidr)), false)
    error_message = "vpc_cidr must be an IPv4 /21 without host bits, as 192.168.200.0/21: it is cut into /28 and /24 by fixed places."
  }
}

variable "zones" {
  description = "The availability zones, one to three. Their order is their place in the network; do not change it later."
  type        = list(string)
  # Written out, not asked of AWS: a zone that it adds would move the others, and take their addresses along.
  default = ["ap-northeast-1a", "ap-northeast-1c", "ap-northeast-1d"]

  validation {
    condition     = length(var.zones) >= 1 && length(var.zones) <= 3 && length(distinct(var.zones)) == length(var.zones)
    error_message = "zones must be one to three different zones, as [\"ap-northeast-1a\", \"ap-northeast-1c\", \"ap-northeast-1d\"]. To run in one zone while nothing is wrong, keep three and write economy = true: then no address is lost."
  }

  validation {
    condition     = alltrue([for zone in var.zones : startswith(zone, var.region)])
    error_message = "zones must be of the region ${var.region}. Write its own zones: aws ec2 describe-availability-zones --region ${var.region} --query 'AvailabilityZones[].ZoneName'"
  }
}

variable "economy" {
  description = "Runs in the first zone alone: one NAT gateway, one task. The other zones' addresses are kept, so that going back changes nobody's allow list."
  type        = bool
  default     = false
}

variable "domain" {
  description = "The proxy's name, as { zone_id = \"Z…\", name = \"proxy.example.com\" }. Null: the load balancer's own name is used."
  type = object({
    zone_id = string
    name    = string
  })
  default = null
}

# ---- the proxy -------------------------------------------------------------------------------------------------------

variable "proxy" {
  description = "Which proxy is deployed: squid (deploy/squid), or mustnot's embedded one."
  type        = string
  default     = "squid"

  validation {
    condition     = contains(["squid", "mustnot"], var.proxy)
    error_message = "proxy must be \"squid\" or \"mustnot\"."
  }
}

variable "squid_image" {
  description = "The image made of deploy/squid, with its tag or digest. Needed with proxy = \"squid\"."
  type        = string
  default     = null

  validation {
    condition     = var.proxy != "squid" ? true : try(length(regexall("(@sha256:[0-9a-f]{64}|:[^/:@]+)$", var.squid_image)) == 1 && !endswith(var.squid_image, ":latest"), false)
    error_message = "squid_image must be an image with a digest or a tag other than latest, since a task that starts at 3 a.m. must be the one that was reviewed. Build deploy/squid, push it, and write its address, as 123456789012.dkr.ecr.ap-northeast-1.amazonaws.com/egress-squid@sha256:…"
  }
}

variable "mustnot_image" {
  description = "The image with `mustnot` on its PATH, with its tag or digest. The monitors and the beacon run it, and so does proxy = \"mustnot\"."
  type        = string

  validation {
    condition     = length(regexall("(@sha256:[0-9a-f]{64}|:[^/:@]+)$", var.mustnot_image)) == 1 && !endswith(var.mustnot_image, ":latest")
    error_message = "mustnot_image must be an image with a digest or a tag other than latest: a monitor that changes by itself proves nothing about yesterday. Write for example 123456789012.dkr.ecr.ap-northeast-1.amazonaws.com/mustnot:0.1.0"
  }
}

variable "helper_image" {
  description = "A busybox: it writes the configuration before the proxy starts, and counts the verdicts for CloudWatch. Mirror it, and write its digest, where images must be your own."
  type        = string
  default     = "public.ecr.aws/docker/library/busybox:1.37.0"
}

variable "client_address" {
  description = "How the proxy learns who calls: \"proxy-protocol\" (PROXY v2), or \"preserve\" (client IP preservation). Without either it would judge the load balancer."
  type        = string
  default     = "proxy-protocol"

  validation {
    condition     = contains(["proxy-protocol", "preserve"], var.client_address)
    error_message = "client_address must be \"proxy-protocol\" or \"preserve\". There is no third: a proxy that sees the load balancer's address alone lets in everybody or nobody."
  }

  validation {
    condition     = !(var.ipv6 && var.client_address == "preserve")
    error_message = "With ipv6 write client_address = \"proxy-protocol\": the load balancer does not preserve an IPv6 client's address towards a task that has IPv4."
  }
}

variable "tasks" {
  description = "How many tasks run at least. Null: three, and one with economy. Fewer healthy ones are an alarm."
  type        = number
  default     = null

  validation {
    condition     = var.tasks == null ? true : var.tasks >= 1 && var.tasks <= var.max_tasks
    error_message = "tasks must be 1 to max_tasks."
  }
}

variable "max_tasks" {
  description = "How many tasks run at most. Cloud Map gives no more than eight addresses in an answer, and the monitor must see each of them."
  type        = number
  default     = 6

  validation {
    condition     = var.max_tasks >= 3 && var.max_tasks <= 8
    error_message = "max_tasks must be 3 to 8: past eight, the name of the tasks does not give them all, and some would go unwatched."
  }
}

variable "task_cpu" {
  description = "CPU units of a task; 1024 are one core."
  type        = number
  default     = 1024

  validation {
    condition     = contains([256, 512, 1024, 2048, 4096], var.task_cpu)
    error_message = "task_cpu must be 256, 512, 1024, 2048 or 4096, which are the sizes of Fargate used here."
  }

  validation {
    condition     = var.proxy != "squid" || var.task_cpu <= 1024
    error_message = "With proxy = \"squid\" task_cpu must be at most 1024: it is one process on one core, so on two it never passes 50 %, and scaling at 70 % never begins. Raise max_tasks instead."
  }
}

variable "task_memory" {
  description = "Memory of a task in MiB, one of the sizes that Fargate has for task_cpu."
  type        = number
  default     = 2048

  validation {
    condition = contains(try({
      256  = [512, 1024, 2048]
      512  = range(1024, 4097, 1024)
      1024 = range(2048, 8193, 1024)
      2048 = range(4096, 16385, 1024)
      4096 = range(8192, 30721, 1024)
    }[var.task_cpu], []), var.task_memory)
    error_message = "task_memory must be a size that Fargate has for task_cpu: two to eight times as much, in steps of 1024, and at most 30720. For one core (1024) 2048 to 8192; for 256 512, 1024 or 2048."
  }
}

variable "architecture" {
  description = "Of all three images: X86_64 or ARM64."
  type        = string
  default     = "X86_64"

  validation {
    condition     = contains(["X86_64", "ARM64"], var.architecture)
    error_message = "architecture must be X86_64 or ARM64, and all images must be built for it."
  }
}

variable "stop_timeout" {
  description = "Seconds between SIGTERM and SIGKILL. Tunnels may go on for ten less, and as long on the load balancer's side before."
  type        = number
  default     = 120

  validation {
    condition     = var.stop_timeout >= 60 && var.stop_timeout <= 120
    error_message = "stop_timeout must be 60 to 120 seconds: 120 is the most on Fargate, and below 60 a target is not yet out of service when its proxy has gone."
  }
}

# ---- the monitor -----------------------------------------------------------------------------------------------------

variable "outside" {
  description = "Where the outside monitor and the beacon stand: \"vpc\", a small one of their own made here, or \"elsewhere\", by deploy/systemd on a host of yours, or in another account."
  type        = string
  default     = "vpc"

  validation {
    condition     = contains(["vpc", "elsewhere"], var.outside)
    error_message = "outside must be \"vpc\" or \"elsewhere\"."
  }
}

variable "beacon_urls" {
  description = "With outside = \"elsewhere\": where the beacon answers, port 443 first, as [\"http://beacon.example.com:443/\"]."
  type        = list(string)
  default     = []

  validation {
    condition     = var.outside == "elsewhere" ? length(var.beacon_urls) > 0 && alltrue([for u in var.beacon_urls : can(regex("^http://[^/@]+:[0-9]+/$", u))]) : length(var.beacon_urls) == 0
    error_message = "beacon_urls goes with outside = \"elsewhere\", and is needed there: the beacon's plain http:// addresses with their ports, as [\"http://beacon.example.com:443/\"]. With outside = \"vpc\" leave it out."
  }

  validation {
    condition     = length(var.beacon_urls) == 0 ? true : strcontains(var.beacon_urls[0], ":443/")
    error_message = "The first of beacon_urls must have port 443: the proxy tunnels nowhere else, so no other would ever be reached from inside."
  }
}

variable "inside_url" {
  description = "With outside = \"elsewhere\": where that monitor reaches the inside one's API, as https://inside-monitor.example.com/. Null: it has no witness at the proxy itself."
  type        = string
  default     = null
}

variable "outside_cidr" {
  description = "The outside monitor's own network, a /28 that overlaps nothing here."
  type        = string
  default     = "10.255.255.0/28"

  validation {
    condition     = try(cidrsubnet(var.outside_cidr, 0, 0) == var.outside_cidr && split("/", var.outside_cidr)[1] == "28", false)
    error_message = "outside_cidr must be a /28 without host bits, as 10.255.255.0/28."
  }
}

variable "admin_pages" {
  description = "What lets in the proxy's fixed addresses alone, by a name of your choice: { crm = \"https://crm.example.com/health\" }. From inside it must answer through the proxy, and be blocked from outside."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name, url in var.admin_pages : can(regex("^[a-z0-9-]{1,32}$", name)) && can(regex("^https://[^/@:]+/", url))])
    error_message = "admin_pages must be names of small letters, digits and hyphens with https:// addresses without port or password, as { crm = \"https://crm.example.com/\" }: the proxy tunnels to port 443 alone."
  }
}

variable "internet_witness" {
  description = "A host:port on the internet that answers everybody: it shows that a monitor is not merely offline."
  type        = string
  default     = "one.one.one.one:443"
}

# ---- what wakes whom -------------------------------------------------------------------------------------------------

variable "alarm_emails" {
  description = "Who gets the alarms by mail; each must confirm. More goes by subscriptions of your own to the topic."
  type        = list(string)
  default     = []
}

variable "monthly_budget" {
  description = "US dollars a month, of the whole account. 80 % of it forecast, or all of it spent, is an alarm."
  type        = number
  default     = 1000
}

variable "hourly_bytes" {
  description = "Bytes leaving AWS within an hour that are an alarm."
  type        = number
  default     = 2500000000
}

variable "log_days" {
  description = "How long logs are kept."
  type        = number
  default     = 365
}

variable "datadog" {
  description = "The link to Datadog: the external id of the AWS integration, the secret with the API key, the site. Null: none."
  type = object({
    external_id        = string
    api_key_secret_arn = string
    site               = optional(string, "datadoghq.com")
    account_id         = optional(string, "464622532012")
    agent_image        = optional(string, "public.ecr.aws/datadog/agent:7.60.1")
  })
  default = null

  validation {
    condition     = var.datadog == null ? true : length(var.datadog.external_id) >= 16 && can(regex("^arn:[^:]+:secretsmanager:", var.datadog.api_key_secret_arn))
    error_message = "datadog needs the external_id that Datadog's AWS integration page shows (without it anybody's Datadog account could take the role), and the ARN of a Secrets Manager secret that holds the API key."
  }
}
