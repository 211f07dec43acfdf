/** What sections say of hosts, held against the other two files: settings that they need, certificates that they ask for. */
import type { ParsedActions } from './actions.js'
import { keyTypesOf, sectionsOf } from './routing.js'
import type { ParsedSettings } from './settings.js'
import type { Problem, Subject } from './types.js'

/**
 * The problems of actions.conf that only the files together show.
 * @param subjects those of `domains`; undefined when that could not be read
 */
export function hostProblems(
  { sections, hostPlaces }: Pick<ParsedActions, 'sections' | 'hostPlaces'>,
  { settings, has }: Pick<ParsedSettings, 'settings' | 'has'>, subjects: readonly Subject[] | undefined,
): Problem[] {
  const problems: Problem[] = []
  for (const [section, { redirect, typed }] of hostPlaces) {
    if (redirect && !has('challengeUrl')) {
      const message = 'forward: a redirect needs the URL of this central host; add challengeUrl to lematt.conf, '
        + 'as in "challengeUrl: http://central.example.com"'
      problems.push({ place: redirect, message })
    }
    // A section that says its own keyTypes: was held against them when it was read.
    if (typed.length === 0 || section.keyTypes || !settings || !subjects) continue
    const mine = subjects.filter((subject) => sectionsOf(subject, sections).includes(section))
    const held = new Set(mine.flatMap((subject) => keyTypesOf(subject, sections, settings)))
    for (const { text, keyType, place } of typed) {
      if (mine.length === 0 || held.has(keyType)) continue
      const message = `verify: "${text}" asks for a certificate of type ${keyType}, and [${section.name}] has only those of `
        + `type ${[...held].join(' and ')} (keyTypes:); take "/${keyType}" off or have that type as well`
      problems.push({ place, message })
    }
  }
  return problems
}
