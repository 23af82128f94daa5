//! A flame graph: the sampled stacks as boxes, callers below, each as wide as it was often seen.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::bulk::count_as_f64;
use crate::page::escaped;

const WIDTH: f64 = 1_400.0;
const ROW: f64 = 17.0;
const TOP: f64 = 30.0;
/// Boxes that are narrower are left out.
const NARROW: f64 = 0.4;
/// Width of a letter, about.
const LETTER: f64 = 6.6;
/// Calls beyond this depth are not told apart: recursion of a parser, for example.
const DEPTH_MAX: usize = 120;

/// Stacks that begin alike, together.
#[derive(Debug, Default)]
pub struct Tree {
    count: u64,
    calls: BTreeMap<String, Tree>,
}

impl Tree {
    /// Adds what `perf script --fields ip,sym` printed: a line a frame, the innermost first, and an
    /// empty line behind each stack.
    pub fn read(&mut self, text: &str) {
        let mut stack: Vec<&str> = Vec::new();
        for line in text.lines().chain([""]) {
            let line = line.trim();
            if let Some((_, name)) = line.split_once(' ') {
                stack.push(name.split("+0x").next().unwrap_or(name).trim());
            } else if line.is_empty() && !stack.is_empty() {
                stack.reverse();
                stack.truncate(DEPTH_MAX);
                self.add(&stack);
                stack.clear();
            }
        }
    }

    /// Stacks read so far.
    pub fn samples(&self) -> u64 {
        self.count
    }

    fn add(&mut self, stack: &[&str]) {
        self.count += 1;
        if let Some((first, rest)) = stack.split_first() {
            self.calls.entry((*first).to_owned()).or_default().add(rest);
        }
    }

    fn depth(&self) -> u32 {
        self.calls.values().map(|call| 1 + call.depth()).max().unwrap_or(0)
    }

    /// The picture; a box tells its name and share when the pointer rests on it.
    pub fn svg(&self, title: &str) -> String {
        let height = TOP + ROW * f64::from(self.depth()) + 8.0;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
             viewBox=\"0 0 {WIDTH} {height}\" font-family=\"monospace\" font-size=\"11\">\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\
             <text x=\"6\" y=\"18\" font-size=\"14\">{}, {} samples</text>\n",
            escaped(title),
            self.count,
        );
        let scale = WIDTH / count_as_f64(self.count.max(1));
        self.draw(&mut svg, 0.0, height - ROW - 4.0, scale, self.count);
        svg + "</svg>\n"
    }

    fn draw(&self, svg: &mut String, left: f64, top: f64, scale: f64, all: u64) {
        let mut left = left;
        for (name, call) in &self.calls {
            let width = count_as_f64(call.count) * scale;
            if width >= NARROW {
                let share = 100.0 * count_as_f64(call.count) / count_as_f64(all.max(1));
                let _ = write!(
                    svg,
                    "<g><title>{0}: {share:.1} %</title><rect x=\"{left:.1}\" y=\"{top:.0}\" \
                     width=\"{width:.1}\" height=\"{1:.0}\" fill=\"{2}\" stroke=\"#fff\" \
                     stroke-width=\"0.5\"/>",
                    escaped(name),
                    ROW - 1.0,
                    colour(name),
                );
                let fits = name.chars().scan(8.0, |room, _| {
                    *room += LETTER;
                    (*room < width).then_some(())
                });
                let shown: String = name.chars().take(fits.count()).collect();
                if shown.len() > 2 {
                    let (x, y) = (left + 3.0, top + 12.0);
                    let _ =
                        write!(svg, "<text x=\"{x:.1}\" y=\"{y:.0}\">{}</text>", escaped(&shown));
                }
                svg.push_str("</g>\n");
                call.draw(svg, left, top - ROW, scale, all);
            }
            left += width;
        }
    }
}

/// Warm, and the same for the same name.
fn colour(name: &str) -> String {
    let hash =
        name.bytes().fold(7_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
    format!("hsl({},{}%,{}%)", 12 + hash % 40, 70 + hash / 64 % 25, 62 + hash / 4_096 % 14)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "\t7f0 inner\n\t7f1 outer<u8>+0x10\n\n\t7f2 other\n\t7f1 outer<u8>\n\n";

    #[test]
    fn stacks_that_begin_alike_share_their_callers() {
        let mut tree = Tree::default();
        tree.read(SCRIPT);
        assert_eq!((tree.samples(), tree.depth(), tree.calls.len()), (2, 2, 1));
        let outer = &tree.calls["outer<u8>"];
        assert_eq!((outer.count, outer.calls.len()), (2, 2));
        let svg = tree.svg("a & b");
        assert!(svg.contains("outer&lt;u8&gt;: 100.0 %") && svg.contains("inner: 50.0 %"), "{svg}");
    }
}
